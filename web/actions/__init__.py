"""What an operator can do from the pages: asked once more, done, and written down."""
