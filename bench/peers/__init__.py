"""OpenCluster and its peers behind one interface; `catalogue` says which there are."""
