"""The room between values and bytes: codec, frames and the kinds of messages."""
