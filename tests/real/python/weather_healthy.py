from weather import serve

serve()
