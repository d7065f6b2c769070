"""The kernel: types, rules and infrastructure shared by every service. Knows no service and no channel."""
