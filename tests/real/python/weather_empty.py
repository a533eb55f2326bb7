from weather import serve

serve("empty")
