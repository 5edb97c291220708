"""All logs of the cluster in one place: searched, paged back in time, and followed."""
