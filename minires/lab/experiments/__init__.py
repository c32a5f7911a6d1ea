"""The experiments, a file for each; ``minires.lab`` has their functions and results, ``catalogue.py`` lists them."""
