from server import serve

serve("longRunningOperation", broken=True)
