from weather import serve

serve("memory")
