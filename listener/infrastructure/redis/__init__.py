"""Redis and Valkey: keys, encodings, the compare-and-set script, and the ports built on them."""
