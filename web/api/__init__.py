"""What the pages show and do, for programs: JSON under ``/api/v1``, with a document."""
