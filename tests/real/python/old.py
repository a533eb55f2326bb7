from server import serve

serve("longRunningOperation")
