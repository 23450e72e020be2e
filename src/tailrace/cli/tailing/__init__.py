"""What `tailrace tail` does. All but `values` is imported when it runs, as it needs the client."""
