"""The tidy tables that the figures draw, from runs that were derived.

Each function returns one row a mark, in the order in which marks are drawn, or an empty table if the runs have nothing to
show. Facts for the caption are in its `attrs`. `rounds` has what happens in a round, `transfers` what the links carry,
`learning` what the model learns, `hosts` what the hosts and their clocks did meanwhile.
"""
