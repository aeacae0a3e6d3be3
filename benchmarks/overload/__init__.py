"""What becomes of shoppers when more come than the backend can serve."""
