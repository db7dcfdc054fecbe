"""The contenders: programs that stand between nodes and subscribers, each started and stopped the same way."""
