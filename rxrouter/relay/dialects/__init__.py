"""How an answer is said to those who don't speak Python: pure files, values in, payloads out."""
