"""What `tailrace chat` shows on a terminal and reads from it."""
