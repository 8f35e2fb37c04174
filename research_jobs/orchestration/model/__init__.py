"""What all floors speak of: the catalog, partitions, status, addresses."""
