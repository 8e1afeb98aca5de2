"""The models, each beginning with its equations, and what all of them share: training, scoring, lists, folding in."""
