"""Dense linear algebra on matrices shared out over ranks."""
