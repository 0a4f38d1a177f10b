FROM library/Alpine
