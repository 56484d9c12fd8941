"""What each operation does: a module for each topic, loaded when the first of its operations is done."""
