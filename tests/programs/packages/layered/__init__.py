WHERE = "from the layer"
