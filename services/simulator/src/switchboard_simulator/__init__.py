"""The world outside, simulated: providers, phones and a webhook receiver."""
