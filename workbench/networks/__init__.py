"""How numbers flow through a network: architectures as flat vectors, distributions, gradients, compiled arithmetic."""
