"""What gateways share through Redis."""
