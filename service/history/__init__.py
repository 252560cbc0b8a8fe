"""What is remembered of every inspection: written beside the way of an answer, never in it.

An answer that is ready leaves its record in the spool, a small file on the local disk. A thread takes the records from
there to the database, in their order. While the database is away they wait in the spool.
"""
