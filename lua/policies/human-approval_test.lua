local t = require "ephor.test"

t.policy "human-approval"

-- Made once by a throw-away script for the key in _human-approval_config.lua; its private half is gone.
local approvals = {
  good = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJqdGkiOiIxIiwibWV0aG9kIjoidG9vbHMvY2FsbCIsInN1YiI6ImJvYkBleGFtcGxlLmNvbSIsInRvb2wiOiJwYXltZW50LnNlbmQifQ.NRK4spxk5EYYZ9goNJxz6a1ASy3XDfcwn-5vBAFJVW8JX4awksHD5ND1S4IflJzByvX97155jO6U84E2wcOCCA",
  again = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJqdGkiOiIyIiwibWV0aG9kIjoidG9vbHMvY2FsbCIsInN1YiI6ImJvYkBleGFtcGxlLmNvbSIsInRvb2wiOiJwYXltZW50LnNlbmQifQ.WAgX2WmFE0g4PRgbiVb_ifH_8nCZFSl8Ns0pXmDA5beLLEp4HtcfAZ4kinF-hQpMYEcj14KpFV6R012D_fZnBA",
  other_call = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1NjphYWNlMDg0YzRkNGJmNWQxZDMzMzAyNTk5NWE2ZWI1MTAzZjM4MzY0YWUyZTNmMWNiYjE2OGVjMWNiYWQ0MjAwIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJqdGkiOiIzIiwibWV0aG9kIjoidG9vbHMvY2FsbCIsInN1YiI6ImJvYkBleGFtcGxlLmNvbSIsInRvb2wiOiJwYXltZW50LnNlbmQifQ.JLauNnXtEgvg8lpkQfxq5gzI2oboApBlmylm7zkAt-3yfkhGVii9Xf9u7DyTuh6X2NinLzWlNk2P_vlrXA3xDw",
  other_tool = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJqdGkiOiI0IiwibWV0aG9kIjoidG9vbHMvY2FsbCIsInN1YiI6ImJvYkBleGFtcGxlLmNvbSIsInRvb2wiOiJwYXltZW50LnJlYWQifQ.a746BTBw7RVUkBJvDljY9c7jUobBdS3w8OvSciEAdSlHlxuMG-Rlej8TjGymBAmpGZgWTttz-4H12FrPu_8IAA",
  other_method = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJqdGkiOiI1IiwibWV0aG9kIjoieCIsInN1YiI6ImJvYkBleGFtcGxlLmNvbSIsInRvb2wiOiJwYXltZW50LnNlbmQifQ.spIPfMGe-ECY4rEnl0UN0Pby3WtxpOC_GiW7fVO3wg7HIsCyURTicQK95DdJwir90hQ2YSk42iXMVXvKG5YfAw",
  other_agent = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3dyaXRlciIsImF1ZCI6ImVwaG9yIiwiZGlnZXN0Ijoic2hhMjU2Ojk1NzI4NDg3Njg4MjEwNGQ2NThiZjMyYzEyYzE0MjZhZDZjN2IzYmQ5YjYxYTMwNDY1ODM0YzQ2NDE1N2UzYWEiLCJleHAiOjE3NjcyMjYyMDAsImlhdCI6MTc2NzIyNTYwMCwiaXNzIjoiaHR0cHM6Ly9hcHByb3ZhbHMuZXhhbXBsZSIsImp0aSI6IjYiLCJtZXRob2QiOiJ0b29scy9jYWxsIiwic3ViIjoiYm9iQGV4YW1wbGUuY29tIiwidG9vbCI6InBheW1lbnQuc2VuZCJ9.0Xu54bunmwNTKy2Lo63X9T0zO7qKUIbwhZI2a40Ksb-t6-M4lfWZuPMB4lZLh9KdzuZEZ0PEp8jFiR6TRsOaCA",
  own = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJqdGkiOiI3IiwibWV0aG9kIjoidG9vbHMvY2FsbCIsInN1YiI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJ0b29sIjoicGF5bWVudC5zZW5kIn0.RlyQtepPqqPsbzXaMqgWqRt751-P7xf5VmDuYEzj4JD8qkQnwnSPeq8XisMpbTgAKFn2H_h2-LyFoPQtsxngDw",
  nobody = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJqdGkiOiI4IiwibWV0aG9kIjoidG9vbHMvY2FsbCIsInRvb2wiOiJwYXltZW50LnNlbmQifQ.VfVDkVryUJEqTLofQxx77RaNoWQzqcQHWVr64uip1itzQTP-KSkUJQX0xOkiJC_Fd8wvaB2NFDe8ZJ0CInTeDA",
  long = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2NTAxLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJqdGkiOiI5IiwibWV0aG9kIjoidG9vbHMvY2FsbCIsInN1YiI6ImJvYkBleGFtcGxlLmNvbSIsInRvb2wiOiJwYXltZW50LnNlbmQifQ.BVGKgpLkJ4ii9yjJ0SGCFjQ0yDHn0taVBtL9vSoHX7xTiVd2KFnQg-rvgdiZM1pt6W6mCsOPwSHMFG9ivzpUBw",
  forever = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiaWF0IjoxNzY3MjI1NjAwLCJpc3MiOiJodHRwczovL2FwcHJvdmFscy5leGFtcGxlIiwianRpIjoiMTAiLCJtZXRob2QiOiJ0b29scy9jYWxsIiwic3ViIjoiYm9iQGV4YW1wbGUuY29tIiwidG9vbCI6InBheW1lbnQuc2VuZCJ9.1u5HQF_cit9j59ZQaMyL1-21Wuj9tKCVDKbThgOfIHOQ89WDkT74UhB-xMcCD3l8riFN-4bjJ5pvdtp17bO5Cw",
  unnumbered = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJtZXRob2QiOiJ0b29scy9jYWxsIiwic3ViIjoiYm9iQGV4YW1wbGUuY29tIiwidG9vbCI6InBheW1lbnQuc2VuZCJ9.cMZHyzj4jFtwpIpGCNsGOXzaXrbLWLxTETMq3TYOwWVJsrlxgXZrLG728EtaKP-WX53yAc6kQ_58jEFlXAetDQ",
  forged = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJqdGkiOiIxMSIsIm1ldGhvZCI6InRvb2xzL2NhbGwiLCJzdWIiOiJib2JAZXhhbXBsZS5jb20iLCJ0b29sIjoicGF5bWVudC5zZW5kIn0.7oH3kdfLcgIZ670HYxvT2e8HOZY3YB1nQZ9-Efn0IG26ssEIknzeZdDK9dM6sfw_GbTIJa_DfOexBgKJKhflAQ",
  untyped = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiSldUIn0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vYXBwcm92YWxzLmV4YW1wbGUiLCJqdGkiOiIxMiIsIm1ldGhvZCI6InRvb2xzL2NhbGwiLCJzdWIiOiJib2JAZXhhbXBsZS5jb20iLCJ0b29sIjoicGF5bWVudC5zZW5kIn0.iAgAxjV9Tm8qovajei3uY4T3EeVhhl3j9NIJ5bA5TUne89V6_S0gToZS_v7n7ih522yY9VBiNFQQT14xeaZ6Bw",
  other_issuer = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpYXQiOjE3NjcyMjU2MDAsImlzcyI6Imh0dHBzOi8vZXZpbC5leGFtcGxlIiwianRpIjoiMTMiLCJtZXRob2QiOiJ0b29scy9jYWxsIiwic3ViIjoiYm9iQGV4YW1wbGUuY29tIiwidG9vbCI6InBheW1lbnQuc2VuZCJ9.gUDGsT8uDJY8mA0WXIC4W14XMPkFzgbiR7N2xgydERNaDomQ5dGOrpgoOu4fXdm8yGr9U1dn5xNvYFyT12h-DA",
  other_audience = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJ4IiwiZGlnZXN0Ijoic2hhMjU2Ojk1NzI4NDg3Njg4MjEwNGQ2NThiZjMyYzEyYzE0MjZhZDZjN2IzYmQ5YjYxYTMwNDY1ODM0YzQ2NDE1N2UzYWEiLCJleHAiOjE3NjcyMjYyMDAsImlhdCI6MTc2NzIyNTYwMCwiaXNzIjoiaHR0cHM6Ly9hcHByb3ZhbHMuZXhhbXBsZSIsImp0aSI6IjE0IiwibWV0aG9kIjoidG9vbHMvY2FsbCIsInN1YiI6ImJvYkBleGFtcGxlLmNvbSIsInRvb2wiOiJwYXltZW50LnNlbmQifQ.kMJlkYiil2DkkWLfoolT-_5HSWyaPRfv95ntkMgGo50HHqrmFfM6DzY5Hj9OYhI-agzscwKdfdxCweUwzh92DQ",
  undated = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImRpZ2VzdCI6InNoYTI1Njo5NTcyODQ4NzY4ODIxMDRkNjU4YmYzMmMxMmMxNDI2YWQ2YzdiM2JkOWI2MWEzMDQ2NTgzNGM0NjQxNTdlM2FhIiwiZXhwIjoxNzY3MjI2MjAwLCJpc3MiOiJodHRwczovL2FwcHJvdmFscy5leGFtcGxlIiwianRpIjoiMTUiLCJtZXRob2QiOiJ0b29scy9jYWxsIiwic3ViIjoiYm9iQGV4YW1wbGUuY29tIiwidG9vbCI6InBheW1lbnQuc2VuZCJ9.44nMW9hVc2cffBuLo0WvzwUEeSbNBG0lGYc_1G6nTcLkDHBYs4ks7L58dXczqVYei9J3Vb7QtDzGT4O6IdtbDg",
  of_nothing = "eyJhbGciOiJFZERTQSIsImtpZCI6ImFwcHJvdmVyIiwidHlwIjoiYXBwcm92YWwrand0In0.eyJhZ2VudCI6InNwaWZmZTovL2NsdXN0ZXIubG9jYWwvbnMvYWdlbnRzL3NhL3BsYW5uZXIiLCJhdWQiOiJlcGhvciIsImV4cCI6MTc2NzIyNjIwMCwiaWF0IjoxNzY3MjI1NjAwLCJpc3MiOiJodHRwczovL2FwcHJvdmFscy5leGFtcGxlIiwianRpIjoiMTYiLCJtZXRob2QiOiJ0b29scy9jYWxsIiwic3ViIjoiYm9iQGV4YW1wbGUuY29tIiwidG9vbCI6InBheW1lbnQuc2VuZCJ9.8t1Ih2LWY_-ATYXROnryQz29t9Y6BqHOTUCHcYwlEEpDwNeubPVVPTK_k3VLlbKsBC6n2_dGfJJR6SuBUH0EBg",
}
local DIGEST = "sha256:957284876882104d658bf32c12c1426ad6c7b3bd9b61a30465834c464157e3aa"
local PLANNER = "spiffe://cluster.local/ns/agents/sa/planner"

local function pay(approval, more, headers)
  t.clock.set "2026-01-01T00:05:00Z"
  local fields = { protocol = "mcp", method = "tools/call", tool = "payment.send", arguments = '{"to":"ann", "amount":1e2, "note":"caf\\u00e9"}', peer = { id = PLANNER },
                   headers = { ["x-approval"] = approval } }
  for name, value in pairs(headers or {}) do
    fields.headers[name] = value
  end
  for key, value in pairs(more or {}) do
    fields[key] = value
  end
  return t.call(fields)
end

t.case("little impact passes, and an approval never goes on to who is called", function()
  local d = pay("x", { tool = "search" })
  t.allowed(d)
  t.ok(d.headers["x-approval"] == nil)
end)

t.case("much impact is refused, with a hint where to approve and what", function()
  local d = pay()
  t.denied(d, "https://approvals.example/new")
  t.denied(d, DIGEST)
  t.equal(d.code, "approval.required")
  t.denied(pay(nil, { tool = "deploy.start" }), "0.85")
end)

t.case("a signed approval of this very call passes, once", function()
  local d = pay(approvals.good)
  t.allowed(d)
  t.equal(d.tags.approved_by, "bob@example.com")
  t.ok(d.headers["x-approval"] == nil)
  t.denied(pay(approvals.good), "used already")
  t.allowed(pay(approvals.again))
end)

t.case("in _meta too", function()
  t.clock.set "2026-01-01T00:05:00Z"
  local function meta(token)
    return pay(nil, { body = '{"params":{"_meta":{"ephor.dev/approval":' .. token .. "}}}" })
  end
  t.denied(meta('"x"'), "three parts")
  t.denied(meta("5"), "no token")
  t.denied(meta('"' .. approvals.forged .. '"'), "signature")
end)

t.case("an approval of anything else is none", function()
  for name, why in pairs {
    other_call = "another call", of_nothing = "another call", other_tool = "another tool", other_method = "another tool", other_agent = "another tool", own = "their own",
    nobody = "'sub'", long = "too long", forever = "never expires", unnumbered = "'jti'", forged = "signature", untyped = "another type", other_issuer = "issuer",
    other_audience = "audience", undated = "too long",
  } do
    t.denied(pay(approvals[name]), why)
  end
  t.denied(pay(approvals.again, { peer = { id = "spiffe://cluster.local/ns/agents/sa/writer" } }), "another tool")
  t.denied(pay(approvals.again, { arguments = { to = "eve", amount = 100, note = "caf\u{e9}" } }), "another call")
  t.denied(pay(approvals.again, { arguments = { to = "ann", amount = "100", note = "caf\u{e9}" } }), "another call")
  t.denied(pay(approvals.again .. "," .. approvals.again), "three parts")
end)

t.case("an approval is of its time", function()
  local function at(when)
    t.clock.set(when)
    return t.call { protocol = "mcp", method = "tools/call", tool = "payment.send", arguments = { to = "ann", amount = 100, note = "caf\u{e9}" }, peer = { id = PLANNER },
                    headers = { ["x-approval"] = approvals.again } }
  end
  t.denied(at "2026-01-01T00:10:00Z", "expired")
  t.denied(at "2025-12-31T23:59:59Z", "not valid yet")
end)

t.case("the caller can raise the impact, and not lower it", function()
  t.denied(pay(nil, nil, { ["x-impact-score"] = "0.0" }), "0.90")
  t.denied(pay(nil, { tool = "search" }, { ["x-impact-score"] = "0.80" }), "0.80")
  t.allowed(pay(nil, { tool = "search" }, { ["x-impact-score"] = "0.79" }))
  t.denied(pay(nil, { tool = "search", arguments = { impact_score = 0.95 } }), "0.95")
  for _, nonsense in ipairs { "nan", "-1", "1e-9", "2", "", "0,1", "0x0" } do
    t.denied(pay(nil, { tool = "search" }, { ["x-impact-score"] = nonsense }), "1.00")
  end
  t.denied(pay(nil, { tool = "search", arguments = { impact_score = "0" } }), "1.00")
  t.denied(pay(nil, { tool = "search", arguments = { impact_score = -1 } }), "1.00")
end)

t.case("names are not lowered by case or by a second pattern", function()
  t.denied(pay(nil, { tool = "payment.sendx" }), "0.90")
  t.allowed(pay(nil, { tool = "payments" }))
end)

t.case("who is nobody can't be approved, and what can't be seen is refused", function()
  t.denied(pay(approvals.again, { peer = { id = "" } }), "no verified identity")
  t.denied(pay(nil, { arguments = "{oops" }))
  t.denied(pay(nil, { visible = "headers", blind = "encoding" }), "can't see")
end)
