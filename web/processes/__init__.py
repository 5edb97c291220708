"""The page of one worker or service: how it is, how it failed, and what it says."""
