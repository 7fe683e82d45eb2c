"""The same model by allreduce and by parameter servers, over the same links."""
