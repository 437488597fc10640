"""What is recorded, how, and by whose clock."""
