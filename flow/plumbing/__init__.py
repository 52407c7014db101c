"""What is done to the plumbing besides consuming: set it up, push into it, look after parked messages."""
