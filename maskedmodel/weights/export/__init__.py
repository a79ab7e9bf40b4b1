"""Models taken out: for other libraries, and as graphs."""
