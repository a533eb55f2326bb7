from server import serve

serve("trigger-long-running-operation")
