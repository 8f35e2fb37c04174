"""What differs between two versions of an output, or between two executed notebooks."""
