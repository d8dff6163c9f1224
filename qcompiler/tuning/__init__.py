"""What turns an allocated graph into a better one of the same bits."""
