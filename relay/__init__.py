"""An event relay for KubeArmor nodes: every node's feeds in, one place to subscribe out."""

__version__ = "0.1.0"
