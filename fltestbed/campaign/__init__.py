"""Campaigns: many runs of one experiment under different factors, in an order that favours none of them."""
