"""What the process of a worker or service is made of, besides what its user wrote.

A `Station` takes in pieces and sends back what came of them; a runner performs them
between the two. Nothing here is known to managers: they meet over the wire.
"""
