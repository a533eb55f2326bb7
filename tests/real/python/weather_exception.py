from weather import serve

serve("exception")
