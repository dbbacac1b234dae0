"""Volumes of the process provider: a provisioner with the name and the semantics of rancher.io/local-path.

Belongs here: making and removing PersistentVolumes and the directories behind them. Mounting them into pods is the node
agent's business, binding claims the controller-manager's.
"""
