"""Pages of dead letters: pieces that ended every worker that took them."""
