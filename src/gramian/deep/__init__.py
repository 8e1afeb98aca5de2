"""Neural models in Keras 3. Recipes and predictions need no Keras; training and networks import it when used."""
