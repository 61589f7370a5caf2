"""ARVPN: WireGuard access into the cluster."""
