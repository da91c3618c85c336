"""What this machine, and the cluster, have, what is wrong and its remedy."""
