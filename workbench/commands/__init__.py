"""What ``python -m workbench`` does, a module for each command; ``__main__`` reads the words and calls them."""
