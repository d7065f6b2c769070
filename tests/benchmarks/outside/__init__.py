"""The world outside, as lean as it can be: its cost is counted apart, and it keeps count of every id it sees."""
