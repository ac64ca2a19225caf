// The entries of the bibliography stand in a list, but docutils gives them a role that lists do not allow.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".citation-list > .citation").forEach((entry) => entry.setAttribute("role", "listitem"));
});
