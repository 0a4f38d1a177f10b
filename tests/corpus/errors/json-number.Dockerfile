FROM scratch
CMD ["a", {"b": 1}]
