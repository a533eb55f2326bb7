from weather import serve

serve("argument")
